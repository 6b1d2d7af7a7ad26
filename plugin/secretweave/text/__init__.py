"""Text alone: how a scalar is spelled, a value encoded, and what a text of its own structure or the kubelet allows."""
