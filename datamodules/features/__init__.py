"""From clips to a store of features, and from it to batches. The one home of h5py."""
