"""The offline demo corpus: sound rendered from a SoundFont, in the layouts of the real datasets,
with exact labels.
"""
