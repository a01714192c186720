# Two stages: one that builds, one that runs. nftables and iptables are for subnet routers and exit nodes.
#   docker build -t meshd .
#   docker run --cap-add=NET_ADMIN --device=/dev/net/tun -v meshd:/var/lib/meshd meshd
# Without the capability and the device: docker run … meshd meshd --tun=userspace-networking
FROM debian:12-slim AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv python3-dev gcc libc6-dev libsodium-dev \
    && rm -rf /var/lib/apt/lists/*
COPY . /src
RUN python3 -m venv /opt/meshd && /opt/meshd/bin/pip install --no-cache-dir /src

FROM debian:12-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 libsodium23 libssl3 ca-certificates nftables iptables \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/meshd /opt/meshd
ENV PATH=/opt/meshd/bin:$PATH PYTHONDONTWRITEBYTECODE=1
VOLUME /var/lib/meshd
EXPOSE 41641/udp
STOPSIGNAL SIGTERM
CMD ["meshd", "--statedir=/var/lib/meshd", "--port=41641"]
