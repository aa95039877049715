"""From a file to clips: decoding, resampling, cutting, worker processes."""
