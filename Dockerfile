# The operator's image: one static binary and the certificates of the public authorities.
#
#   docker build --build-arg VERSION=0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" --tag operator:0.1.0 .
#
# The builder is any image with this Rust, the musl target of its own architecture, a C compiler for it and
# /etc/ssl/certs/ca-certificates.crt. The binary needs nothing of the base, so that `scratch` does as well. The digests are
# those of the tags beside them, for all architectures.
ARG BUILDER_IMAGE=docker.io/library/rust:1.95-alpine@sha256:606fd313a0f49743ee2a7bd49a0914bab7deedb12791f3a846a34a4711db7ed2
ARG BASE_IMAGE=gcr.io/distroless/static-debian12:nonroot@sha256:afa5c872c891853ca7fcf1f12c3edb23f7eeef36189728842dd51042ff57f7ab

FROM ${BUILDER_IMAGE} AS builder
WORKDIR /source
COPY . .
ARG VERSION=
# An image whose label and binary disagree about the version is not built.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    target="$(uname -m)-unknown-linux-musl" && \
    cargo build --release --locked --package mistral-workflows-operator --target "$target" && \
    cp "target/$target/release/mistral-workflows-operator" /mistral-workflows-operator && \
    strip /mistral-workflows-operator && \
    built="$(/mistral-workflows-operator --version)" && \
    if [ -n "$VERSION" ] && [ "$built" != "mistral-workflows-operator $VERSION" ]; then \
        echo "VERSION is $VERSION, and this is $built" >&2; exit 1; \
    fi

FROM ${BASE_IMAGE}
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
