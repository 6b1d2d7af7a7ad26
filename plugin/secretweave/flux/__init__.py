"""What renders, weaves and publishes ahead of Flux, in CI (`push`) and in the cluster (`controller`).

Flux's controllers start no program of others: what is woven must reach them as an artifact, and a Secret in an artifact
must be encrypted. https://fluxcd.io/flux/components/kustomize/kustomizations/#decryption
"""
