"""Every head at once: probes, their training, what they say of each track."""
