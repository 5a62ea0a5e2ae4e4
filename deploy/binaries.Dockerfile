# The images' binaries, compiled in a container: what deploy/build does, for those who have no Rust.
#   docker build --file deploy/binaries.Dockerfile --output DIRECTORY .
#   docker build --file deploy/Dockerfile --target hushpod DIRECTORY          (and hushpod-agent, hushpod-csi)
# CI does not try this: its machines reach no image registry.
ARG RUST=rust:1.95-bookworm
FROM $RUST AS build
WORKDIR /src
COPY . .
RUN deploy/build /out

FROM scratch
COPY --from=build /out /
