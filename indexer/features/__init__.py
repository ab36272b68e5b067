"""Feature extraction, arrays in and out: NMF, pooling, descriptors, whitening, and descriptions of images."""
