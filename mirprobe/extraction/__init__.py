"""Every clip once: forward passes, pooling and writing, resumable."""
