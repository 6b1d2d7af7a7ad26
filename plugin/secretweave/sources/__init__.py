"""Renders what lies in a folder (a chart, a kustomization, plain manifests) for the hosts that hand over sources.

The folder is hostile: it is a tenant's. Whatever runs to render it, runs in the sandbox.
"""
