"""A kustomization, as Argo CD and Flux build one: `kustomize build`, without a network.

Argo CD has it keep its load restrictor, Flux lets it read all of the source.

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
            why=job.host.no_charts,
            fix=job.host.instead,
        )
    _kustomization.check(job, MARKERS, with_helm=with_helm)
    arguments, executable = ["build", "."], []
    if job.host.reads_whole_root and programs.keeps_files():
        arguments.append("--load-restrictor=LoadRestrictionsNone")
    elif job.host.reads_whole_root:
        # The configuration of a built-in generator is not looked through for paths: something must keep it in the root.
        job.warn("the kernel has no Landlock: a kustomization reads files of its own folder alone")
    if with_helm:
        helm = programs.find("helm", job.settings.helm.program, job.environ, job.host.section)
        executable.append(helm)
        arguments += ["--enable-helm", f"--helm-command={helm}"]
        arguments += _private.capabilities(job, "--helm-kube-version", "--helm-api-versions")
    with _private.home(job.environ) as home:
        call = programs.Call(
            program=programs.find("kustomize", job.settings.kustomize.program, job.environ, job.host.section),
            arguments=arguments,
            folder=job.folder,
            environ=_private.environment(home),
            readable=(job.root, home),
            writable=(home,),
            root=job.root,
            deadline=job.deadline,
            seconds=job.seconds,
            executable=executable,
            fix=job.host.fix,
            more_time=job.host.more_time,
            container=job.host.container,
            has_threads=job.host.has_threads,
        )
        with programs.started(call) as output:
            yield "kustomize build", output
