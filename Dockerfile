# syntax=docker/dockerfile:1
FROM python:3.12-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src

# Every locked distribution, checked against its hash; what is installed below comes from here.
COPY requirements.lock .
RUN pip download --quiet --require-hashes --dest /wheels --requirement requirements.lock

COPY pyproject.toml README.md LICENSE beat_schedule.py ./
COPY clasper_worker clasper_worker
RUN pip install --quiet --no-index --find-links /wheels hatchling \
    && pip wheel --quiet --no-index --no-deps --no-build-isolation --wheel-dir /wheels .
# Without the extras: neither the tools of development nor an embedded Redis.
RUN python -m venv /venv \
    && /venv/bin/pip install --quiet --no-index --find-links /wheels clasper-worker

FROM python:3.12-slim
RUN useradd --system --create-home --home-dir /app clasper && mkdir /app/data && chown clasper /app/data
COPY --from=build /venv /venv
COPY workspace /app/workspace
COPY --chmod=755 docker/with-stand-ins.sh /app/bin/clasper
RUN ln /app/bin/clasper /app/bin/celery
ENV PATH=/app/bin:/venv/bin:$PATH PYTHONUNBUFFERED=1
USER clasper
WORKDIR /app
ENTRYPOINT ["clasper"]
CMD ["worker"]
