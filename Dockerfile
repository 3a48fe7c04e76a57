# The same file as everywhere, as a broker: ./build/pyz first, then docker build .
# A file of ./build/pyz --targets all runs on every Python and platform that the base image comes in; one that was built
# for a single Python needs that one: --build-arg PYTHON=3.13.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim

RUN useradd --uid 7900 --user-group --create-home claudemesh \
    && install -d -o claudemesh -g claudemesh -m 0700 /data

COPY dist/claudemesh.pyz /usr/local/bin/claudemesh.pyz

USER 7900:7900
ENV CLAUDEMESH_CACHE=/home/claudemesh/.cache/claudemesh
# Unpacks now, so that the first start of each container is quick.
RUN claudemesh.pyz version

VOLUME /data
EXPOSE 7900
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7900/readyz', timeout=2)"]
ENTRYPOINT ["claudemesh.pyz"]
CMD ["broker", "up", "--listen", "0.0.0.0:7900", "--data-dir", "/data"]
