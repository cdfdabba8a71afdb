# Both commands in one small image. SQLite is C, so the build needs gcc, and the image the same C library.
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY cmd cmd
COPY consumer consumer
COPY internal internal
COPY docs/docs.go docs/openapi.yaml docs/asyncapi.yaml docs/
COPY docs/schemas docs/schemas
RUN go build -trimpath -o /out/ ./cmd/...

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/jobtally jobtally
COPY --from=build /out/api /out/projector /usr/local/bin/
USER jobtally
WORKDIR /var/lib/jobtally
VOLUME /var/lib/jobtally
EXPOSE 8080
CMD ["api", "--addr", "0.0.0.0:8080"]
