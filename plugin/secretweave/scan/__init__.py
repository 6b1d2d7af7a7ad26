"""What the scan walks on: the objects of a document, its workloads, and the ranges of text around their nodes."""
