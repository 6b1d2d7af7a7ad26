"""What processes that last have in common, whichever host they serve: the Argo CD daemon and the Flux controller.

`kept` holds their store clients, `watch` is their log and their metrics, `serving` a small HTTP server.
"""
