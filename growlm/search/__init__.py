"""What is found on small models for large ones: the coordinate check, proxies, hyper-parameter search."""
