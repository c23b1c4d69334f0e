# docker buildx build --platform linux/amd64,linux/arm64 -t offramp .
#
# The build runs on the platform it builds for (natively or under emulation), so that no cross compiler is needed.
#
# The dependencies are most of the work and a layer of their own. It is an ordinary layer, so that `--cache-from` brings
# it to a machine that has never built this, as a CI machine is; a cache mount would stay behind. And it takes no tool
# but cargo, since each more is one to download, to pin and to trust.

# What decides about the dependencies: the manifests, the lock file, and an empty source for each target that they
# name. Until one of these changes, the outcome is the same to the byte, and the layer below is taken from the cache.
FROM rust:1.95.0-slim-trixie AS skeleton
WORKDIR /src
COPY . .
RUN find . -type f ! -name 'Cargo.*' ! -path './crates/*/src/lib.rs' ! -path './crates/*/src/main.rs' \
        ! -path './tests/*.rs' ! -path './benches/*.rs' -delete \
    && find . -type d -empty -delete \
    && echo 'fn main() {}' >empty \
    && find . -name '*.rs' -exec cp empty {} \; \
    && rm empty

FROM rust:1.95.0-slim-trixie AS build
WORKDIR /src
COPY --from=skeleton /src .
RUN cargo build --release --locked --package offramp
COPY . .
# A checkout may give our sources any time. Cargo has to see that they are newer than the empty ones.
RUN find crates -name '*.rs' -exec touch {} + \
    && cargo build --release --frozen --package offramp

# glibc, libgcc, CA certificates and time zones of the same Debian; no shell, no package manager.
FROM gcr.io/distroless/cc-debian13:nonroot
LABEL org.opencontainers.image.title="offramp" \
      org.opencontainers.image.description="Takes Kubernetes nodes on AWS out of service without anybody noticing." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/offramp-sh/offramp"
COPY --from=build /src/target/release/offramp /offramp
# By number, so that Kubernetes can check runAsNonRoot.
USER 65532:65532
ENTRYPOINT ["/offramp"]
CMD ["run"]
