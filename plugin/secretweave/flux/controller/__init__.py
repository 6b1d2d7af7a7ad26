"""`secretweave flux controller`: SecretWeave objects in, artifacts for kustomize-controller out.

    run.py         the parts together: events (kopf) -> queue -> workers -> reconcile, until SIGTERM or a lost Lease
    events.py      kopf, and nothing else of it: what changed in the cluster
    queue.py       which object is next; no object in two workers
    resource.py    a SecretWeave as it is read, and the conditions that it gets
    reconcile.py   one object, once: source -> build -> weave -> archive -> ExternalArtifact -> status
    published.py   the archives on the volume, and who may fetch them
    keys.py        the age keys, and the key by which ciphertext stays the same
    sharing.py     one read for all objects of one identity
    lease.py       one replica at work
    watch.py       log lines and metrics

What is at rest: archives with sealed Secrets on the volume; age identities and the digest key in the cluster's Secrets.
"""
