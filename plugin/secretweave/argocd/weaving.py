"""How an Application's rendered stream is woven: the same in the daemon as without it."""

from typing import BinaryIO

from secretweave import pipeline
from secretweave.argocd.app import App
from secretweave.config import Config, binding
from secretweave.outputs import Outside
from secretweave.scan.page import Findings


def weave(app: App, config: Config, sources: pipeline.Sources, out: BinaryIO, outside: Outside) -> Findings:
    """As pipeline.weave, within what is bound to the Application's project and its destination."""
    config = binding.bound(config, {"project": app.project, "namespace": app.namespace})
    run = pipeline.Run(namespace=app.namespace, identity=app.project, destination=app.namespace)
    return pipeline.weave(sources, out, config, run, outside)
