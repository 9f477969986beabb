# Image of the server:   docker build -t medserve .   (podman build works too)
# With CUDA:             docker build --target cuda -t medserve:cuda .

# Any base image with Python 3.11 or newer, glibc and a Debian-like layout. Envoy embeds Python and needs libpython: the
# official Python images contain it, a Debian image needs the package libpython3.11.
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm


FROM ${BASE_IMAGE} AS installer
# Bytecode is compiled once, after unneeded files have been removed.
ENV PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source
COPY deploy/requirements-*.txt ./
# Only files with the hashes in these lists are installed. The build tools have their own environment.
RUN python3 -m venv /opt/medserve && python3 -m venv /build && \
    /build/bin/pip install --require-hashes -r requirements-build.txt


FROM installer AS package
COPY pyproject.toml README.md LICENSE ./
COPY proto proto
COPY server server
COPY client client
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheel .


FROM installer AS environment-cuda
RUN /opt/medserve/bin/pip install --require-hashes -r requirements-cuda.txt
COPY deploy/prune-environment.sh ./
COPY --from=package /wheel /wheel
RUN /opt/medserve/bin/pip install --no-deps --no-index /wheel/*.whl && sh prune-environment.sh /opt/medserve && \
    /opt/medserve/bin/python -c "from medserve_server.transport.envoy.process import check_envoy; check_envoy()"


FROM installer AS environment-cpu
RUN /opt/medserve/bin/pip install --require-hashes -r requirements-cpu.txt
COPY deploy/prune-environment.sh ./
COPY --from=package /wheel /wheel
RUN /opt/medserve/bin/pip install --no-deps --no-index /wheel/*.whl && sh prune-environment.sh /opt/medserve && \
    /opt/medserve/bin/python -c "from medserve_server.transport.envoy.process import check_envoy; check_envoy()"


FROM ${BASE_IMAGE} AS models
COPY models /models
# Files of a checkout may be readable only by their owner, but the image runs as another user.
RUN chmod -R a+rX /models


FROM ${BASE_IMAGE} AS runtime
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="medserve" \
      org.opencontainers.image.description="Serves CNN diagnosis models over gRPC and REST" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
# Removes package installers, wherever the base image has them.
RUN rm -rf /usr/local/lib/python3.*/site-packages/* /usr/local/lib/python3.*/ensurepip \
           /usr/lib/python3.*/ensurepip /usr/lib/python3/dist-packages/* /usr/share/python-wheels \
           /usr/local/bin/pip* /usr/bin/pip*
# MEDSERVE_SERVER is the address that the command medserve connects to: keep its port equal to MEDSERVE_PORT.
# ONNX Runtime sends telemetry to Microsoft by default.
ENV PATH=/opt/medserve/bin:/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MEDSERVE_HOST=0.0.0.0 \
    MEDSERVE_PORT=8001 \
    MEDSERVE_METRICS_PORT=8002 \
    MEDSERVE_MODELS=/models \
    MEDSERVE_SERVER=127.0.0.1:8001 \
    ORT_DISABLE_TELEMETRY=1
EXPOSE 8001 8002
WORKDIR /
# A numeric user without an entry in /etc/passwd: Kubernetes checks runAsNonRoot only for numeric users.
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["medserve", "health"]
ENTRYPOINT ["medserve-server"]


FROM runtime AS cuda
ENV MEDSERVE_PROVIDER=cuda NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=environment-cuda /opt/medserve /opt/medserve
COPY --from=models /models /models


FROM runtime AS cpu
COPY --from=environment-cpu /opt/medserve /opt/medserve
COPY --from=models /models /models
