# One image for every role: `longhaul serve`, `longhaul api`, `longhaul worker`, `longhaul migrate`.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin longhaul && cp target/release/longhaul /longhaul

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 65532 --home-dir /data longhaul \
    && mkdir /data /objects && chown longhaul /data /objects
COPY --from=build /longhaul /usr/local/bin/longhaul
USER 65532
WORKDIR /data
VOLUME ["/data"]
ENV LONGHAUL_API__LISTEN=0.0.0.0:8080
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s \
    CMD ["longhaul", "health", "--server", "http://127.0.0.1:8080"]
ENTRYPOINT ["longhaul"]
CMD ["serve"]
