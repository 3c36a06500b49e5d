# The operator's image: one static binary and the certificates of the public authorities.
#
#   docker build --build-arg VERSION=0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" --tag operator:0.1.0 .
#
# The builder is any image with this Rust, the musl target of the image's architecture, a C compiler for it and
# /etc/ssl/certs/ca-certificates.crt. This one compiles for its own architecture; `cargo xtask release build` brings one
# that compiles for the others as well. The binary needs no base image, so nobody has to keep one up to date.
ARG BUILDER_IMAGE=docker.io/library/rust:1.95-alpine@sha256:606fd313a0f49743ee2a7bd49a0914bab7deedb12791f3a846a34a4711db7ed2

FROM --platform=$BUILDPLATFORM ${BUILDER_IMAGE} AS builder
WORKDIR /source
COPY . .
ARG VERSION=
# What docker sets for an image of another architecture, and for tools that do not, what is given.
ARG TARGETARCH
ARG ARCHITECTURE=
# An image whose label and binary disagree about the version is not built.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    case "${ARCHITECTURE:-${TARGETARCH:-$(uname -m)}}" in \
        amd64 | x86_64) architecture=x86_64 ;; \
        arm64 | aarch64) architecture=aarch64 ;; \
        *) echo "there is no image for $ARCHITECTURE$TARGETARCH" >&2; exit 1 ;; \
    esac && \
    target="$architecture-unknown-linux-musl" && \
    CARGO_PROFILE_RELEASE_STRIP=symbols \
        cargo build --release --locked --package mistral-workflows-operator --target "$target" && \
    cp "target/$target/release/mistral-workflows-operator" /mistral-workflows-operator && \
    if [ -n "$VERSION" ] && [ "$architecture" = "$(uname -m)" ]; then \
        built="$(/mistral-workflows-operator --version)" && \
        if [ "$built" != "mistral-workflows-operator $VERSION" ]; then \
            echo "VERSION is $VERSION, and this is $built" >&2; exit 1; \
        fi; \
    fi

FROM scratch
ARG VERSION=
ARG REVISION=
LABEL org.opencontainers.image.title="mistral-workflows-operator" \
      org.opencontainers.image.description="Kubernetes operator for Mistral AI Workflows" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/mistral-workflows-operator/mistral-workflows-operator" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=builder /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=builder /mistral-workflows-operator /mistral-workflows-operator
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/mistral-workflows-operator"]
CMD ["run"]
