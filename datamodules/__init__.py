"""Files into batches: datasets, audio, clips and the feature store. Knows no model and never
imports `mirprobe`.
"""
