# A worker: torch with CUDA from its own wheels, so the host needs the NVIDIA driver and container toolkit alone.
FROM python:3.11.16-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b AS build
WORKDIR /src
COPY constraints.txt ./
COPY pyproject.toml README.md LICENSE ./
COPY alignment_core alignment_core
COPY attune attune
COPY demo demo
COPY service service
COPY worker worker
# with byte code: the user below cannot write it, and every process would compile the packages anew
RUN python -m venv /opt/attune \
    && /opt/attune/bin/pip install --no-cache-dir -c constraints.txt '.[core,worker,tracing]'

FROM python:3.11.16-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b
RUN useradd --uid 10001 --user-group --create-home attune \
    && install -d -o attune -g attune /var/lib/attune /var/lib/attune/cache /var/lib/attune/work
COPY --from=build /opt/attune /opt/attune
ENV PATH=/opt/attune/bin:$PATH PYTHONUNBUFFERED=1 ATTUNE_DATA_DIR=/var/lib/attune \
    HF_HOME=/var/lib/attune/cache/huggingface NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER attune
WORKDIR /var/lib/attune
VOLUME /var/lib/attune/cache /var/lib/attune/work
# SIGTERM lets the running job save, and gives it back to the queue; `docker stop` needs a grace time for that.
STOPSIGNAL SIGTERM
CMD ["celery", "-A", "worker.app", "worker", "--queues", "celery", "--without-mingle", "--without-gossip", "--loglevel", "INFO"]
