# The image of the Argo CD plugin and of the Flux controller, which is also the command by itself:
#
#     docker run --rm -i --log-driver=none -v "$PWD/config.yaml:/etc/secretweave/config.yaml:ro" IMAGE < rendered.yaml
#
# (without that log driver, the container's log on the disk holds what is written, secrets included).
# Argo CD's repo-server has it as a sidecar with `command: [/var/run/argocd/argocd-cmp-server]`: that program is not in
# here, an init container of Argo CD's own image copies it into a volume, so that it always has Argo CD's version.
#
# The base images are named by tag: PYTHON_IMAGE and GO_IMAGE may name them by digest, or others that hold what your
# network demands, such as the certificate of a proxy.
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim
ARG GO_IMAGE=docker.io/library/golang:1.26-trixie


FROM ${GO_IMAGE} AS programs

# A mirror of the modules: without credentials, which would stay in the builder's cache. What it gives is verified by
# the checksum database.
ARG GOPROXY=""
ARG GOSUMDB=""
ENV CGO_ENABLED=0 GOBIN=/programs

# Tells which modules are in a Go program, by what the linker wrote into it.
ARG CYCLONEDX_GOMOD=v1.10.0
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    mkdir /sbom && \
    GOBIN=/usr/local/bin go install -trimpath \
      github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@${CYCLONEDX_GOMOD}

# The versions that the tests run (tests/hosts/build.py): that a program cannot get out of its confinement is shown for
# those.
ARG HELM=v3.22.0
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    go install -trimpath -ldflags="-s -w -X helm.sh/helm/v3/internal/version.version=${HELM}" \
      helm.sh/helm/v3/cmd/helm@${HELM} && \
    cyclonedx-gomod bin -json -noserial -std -version ${HELM} -output /sbom/helm.cdx.json /programs/helm

ARG KUSTOMIZE=v5.8.2
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    go install -trimpath -ldflags="-s -w" sigs.k8s.io/kustomize/kustomize/v5@${KUSTOMIZE} && \
    cyclonedx-gomod bin -json -noserial -std -version ${KUSTOMIZE} -output /sbom/kustomize.cdx.json /programs/kustomize

# Encrypts what the Flux controller publishes, and decrypts SOPS files of the store `file`.
ARG SOPS=v3.13.3
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    go install -trimpath -ldflags="-s -w" github.com/getsops/sops/v3/cmd/sops@${SOPS} && \
    cyclonedx-gomod bin -json -noserial -std -version ${SOPS} -output /sbom/sops.cdx.json /programs/sops


FROM ${PYTHON_IMAGE} AS package

# The same for Python's packages; the lock files' hashes verify them.
ARG PIP_INDEX_URL=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_QUIET=1 PIP_NO_DEPS=1
WORKDIR /build

# What builds the wheel and writes the SBOM stays behind here.
COPY requirements-image.lock ./
RUN python3 -m venv tools && \
    tools/bin/python -m pip install --require-hashes --only-binary :all: -r requirements-image.lock

# Compiled modules that never look at their source: nothing is to be written where nothing can be, starts are faster.
ARG COMPILE="python -m compileall -q -j 0 --invalidation-mode unchecked-hash"

# A space between two. `argocd` is for the metrics of `secretweave argocd serve`, `flux` for `secretweave flux`, the others
# are stores.
ARG EXTRAS="argocd aws azure flux gcp kubernetes vault"
COPY plugin/requirements*.lock plugin/
RUN set -- -r plugin/requirements.lock && \
    for extra in ${EXTRAS}; do set -- "$@" -r "plugin/requirements-${extra}.lock"; done && \
    python3 -m venv --without-pip /opt/secretweave && \
    tools/bin/python -m pip --python /opt/secretweave/bin/python install --require-hashes --only-binary :all: "$@" && \
    /opt/secretweave/bin/${COMPILE} /opt/secretweave/lib

COPY pyproject.toml README.md LICENSE ./
COPY plugin/secretweave plugin/secretweave
RUN tools/bin/python -m pip wheel --no-build-isolation --no-index --wheel-dir dist . && \
    tools/bin/python -m pip --python /opt/secretweave/bin/python install --no-index --find-links dist secretweave && \
    /opt/secretweave/bin/${COMPILE} /opt/secretweave/lib/python3*/site-packages/secretweave && \
    mkdir /sbom && \
    tools/bin/cyclonedx-py environment --output-reproducible --output-format JSON --output-file /sbom/python.cdx.json \
      /opt/secretweave/bin/python


FROM ${PYTHON_IMAGE}

# Python's image comes without compiled modules of the standard library, and user 999 could not write any: each start
# would compile them anew. The user is the one that Argo CD's sidecars have.
RUN echo "argocd:x:999:" >> /etc/group && \
    echo "argocd:x:999:999::/home/argocd:/usr/sbin/nologin" >> /etc/passwd && \
    python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash -x "/(site|dist)-packages/" \
      "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"

COPY --from=programs /programs /usr/local/bin
COPY --from=package /opt/secretweave /opt/secretweave
COPY --from=programs /sbom /usr/share/secretweave/sbom
COPY --from=package /sbom /usr/share/secretweave/sbom
# The sidecar finds it here; a ConfigMap may be mounted over it.
COPY --chmod=644 argocd/plugin.yaml /home/argocd/cmp-server/config/plugin.yaml

ENV PATH=/opt/secretweave/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER 999:999
WORKDIR /home/argocd
ENTRYPOINT ["secretweave"]

ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="secretweave" \
      org.opencontainers.image.description="Replaces secret references in rendered Kubernetes manifests with Secrets from your stores" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/secretweave/secretweave" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
