"""The daemon beside the plugin, which keeps stores logged in: client.py (generate's side) -> wire.py -> serve.py.

kept.py has the stores that outlive a request, watch.py its log and metrics.
"""
