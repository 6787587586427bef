# syntax=docker/dockerfile:1
# The gateway as one file on a base without shell or package manager.
#
#   docker build --tag mooring .
#   docker run --publish 127.0.0.1:8180:8180 mooring serve --auth off --backend http://gpu-a:8188
#
# Inside of the container it listens for others, so it has to be told who of them may come in: with
# `--auth off` everybody who can connect, which is this host alone as it is published here.

# Others may be given, of a registry of your own: `--build-arg BUILDER=… --build-arg BASE=…`.
ARG BUILDER=rust:1.95-slim-bookworm
ARG BASE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILDER} AS build
# jemalloc is built with gcc and make; Python gathers the licences of what is in the executable. Any
# version will do, and Debian keeps only its newest.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev make python3 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
# What Cargo sets for the build: the size of pages on ARM.
COPY .cargo .cargo
# Cargo wants the files of the benchmarks that Cargo.toml names, though it does not build them.
COPY benches benches
COPY src src
COPY packaging/notices.py packaging/
# The caches outlive a build, so the executable is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked \
    && cp target/release/mooring /mooring \
    && python3 packaging/notices.py /THIRD-PARTY-NOTICES

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Mooring" \
      org.opencontainers.image.description="A sticky gateway that makes many ComfyUI servers look like one" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /mooring /mooring
COPY --from=build /THIRD-PARTY-NOTICES /THIRD-PARTY-NOTICES
COPY LICENSE /LICENSE

# Clients come from outside the container. This goes over `server.listen` of a file, and needs an
# `auth.mode` (MOORING_AUTH__MODE, `--auth`, or in the file). The admin listener stays on loopback, where the health check asks it: on any other address it needs a
# token (MOORING_ADMIN__LISTEN=0.0.0.0:8181 and MOORING_ADMIN__TOKEN).
ENV MOORING_SERVER__LISTEN=0.0.0.0:8180
EXPOSE 8180 8181

# `nonroot` of the base, as a number, so that Kubernetes can see that it is not root.
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s --retries=3 \
    CMD ["/mooring", "healthcheck"]
ENTRYPOINT ["/mooring"]
CMD ["serve"]
