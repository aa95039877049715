"""The sound of the demo: a SoundFont renderer, a voice, a composer."""
