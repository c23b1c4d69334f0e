# docker buildx build --platform linux/amd64,linux/arm64 -t offramp .
#
# The build runs on the platform it builds for (natively or under emulation), so that no cross compiler is
# needed. Registry and target folder are cache mounts: a change of our code compiles no dependency again.

FROM rust:1.95.0-slim-trixie AS build
ARG TARGETARCH
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/var/cache/target,sharing=locked \
    CARGO_TARGET_DIR="/var/cache/target/${TARGETARCH}" cargo build --release --locked --package offramp \
    && install -D "/var/cache/target/${TARGETARCH}/release/offramp" /out/offramp

# glibc, libgcc, CA certificates and time zones of the same Debian; no shell, no package manager.
FROM gcr.io/distroless/cc-debian13:nonroot
LABEL org.opencontainers.image.title="offramp" \
      org.opencontainers.image.description="Takes Kubernetes nodes on AWS out of service without anybody noticing." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/offramp-sh/offramp"
COPY --from=build /out/offramp /offramp
# By number, so that Kubernetes can check runAsNonRoot.
USER 65532:65532
ENTRYPOINT ["/offramp"]
CMD ["run"]
