# One image for `mediagate api`, `mediagate worker` and `mediagate migrate`. PostgreSQL and Redis are not in it.
FROM python:3.13-slim-bookworm AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python -m venv --without-pip /opt/mediagate
# The dependencies first: they change less often than the code.
COPY requirements.lock ./
RUN pip --python /opt/mediagate install --only-binary :all: --require-hashes -r requirements.lock
COPY requirements-build.lock ./
RUN pip install --require-hashes -r requirements-build.lock
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY app ./app
COPY workers ./workers
COPY migrations ./migrations
RUN pip wheel --no-deps --no-index --no-build-isolation --wheel-dir /wheels . \
    && pip --python /opt/mediagate install --no-deps --no-index /wheels/*.whl

FROM python:3.13-slim-bookworm
RUN groupadd --gid 10001 mediagate \
    && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin mediagate \
    && install --directory --owner 10001 --group 10001 /data
COPY --from=builder /opt/mediagate /opt/mediagate
COPY config /etc/mediagate
COPY LICENSE NOTICE /usr/share/doc/mediagate/
ENV PATH=/opt/mediagate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MEDIAGATE_ENV=production \
    MEDIAGATE_HOST=0.0.0.0 \
    MEDIAGATE_PORT=8000 \
    MEDIAGATE_DATA=/data \
    MEDIAGATE_CONFIG_DIR=/etc/mediagate
USER 10001:10001
WORKDIR /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"MEDIAGATE_PORT\"]}/healthz', timeout=3)"]
CMD ["mediagate", "api"]
