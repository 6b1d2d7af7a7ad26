"""secretweave: replaces secret references in rendered Kubernetes manifests with Secrets from the configured stores."""

__version__ = "0.1.0"
