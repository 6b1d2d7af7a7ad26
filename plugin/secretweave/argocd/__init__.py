"""The config-management plugin of Argo CD: what `secretweave argocd generate|init|parameters|serve` do.

An Application's source is rendered by the program of its kind (kinds/, one file each), confined (sandbox.py), and the
rendered stream is woven: by the daemon where its socket is there, else in this process. Which Application it is, Argo
CD's own variables say (app.py); what it may choose, the table in parameters.py.

https://argo-cd.readthedocs.io/en/stable/operator-manual/config-management-plugins/
"""
