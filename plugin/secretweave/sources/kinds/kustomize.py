"""A kustomization, as Argo CD itself builds one: `kustomize build` with its load restrictor, and without a network.

https://kubectl.docs.kubernetes.io/references/kustomize/kustomization/
"""

from collections.abc import Generator

from secretweave.errors import PolicyError
from secretweave.reading import Readable
from secretweave.sources.kinds import Job, _private

MARKERS = ("kustomization.yaml", "kustomization.yml", "Kustomization")


def manifests(job: Job) -> Generator[tuple[str, Readable], None, None]:
    """Raises Faults of what it names, ConfigError; kustomize's own failure comes from the stream's end."""
    from secretweave.sources import programs
    from secretweave.sources.kinds import _kustomization

    with_helm = bool(job.choices.get("enable-helm"))
    if with_helm and not job.settings.kustomize.helm:
        raise PolicyError(
            "the parameter enable-helm is not allowed here",
            why="the platform leaves spec.argocd.kustomize.helm off",
            fix="render the chart as a source of its own, or ask the platform to allow it",
        )
    _kustomization.check(job, MARKERS, with_helm=with_helm)
    arguments, executable = ["build", "."], []
    if with_helm:
        helm = programs.find("helm", job.settings.helm.program, job.environ)
        executable.append(helm)
        arguments += ["--enable-helm", f"--helm-command={helm}"]
        arguments += _private.capabilities(job, "--helm-kube-version", "--helm-api-versions")
    with _private.home(job.environ) as home:
        call = programs.Call(
            program=programs.find("kustomize", job.settings.kustomize.program, job.environ),
            arguments=arguments,
            folder=job.folder,
            environ=_private.environment(home),
            readable=(job.root, home),
            writable=(home,),
            root=job.root,
            deadline=job.deadline,
            seconds=job.seconds,
            executable=executable,
        )
        with programs.started(call) as output:
            yield "kustomize build", output
