"""Arrays in, arrays out: NMF, pooling, descriptors, whitening, and the path from pixels to a description."""
