#!/bin/sh
# Run one sample against a server that is up: SERVER=127.0.0.1:50070 docs/samples/run.sh node TEXT
set -eu

samples=$(cd "$(dirname "$0")" && pwd)
protos=$samples/../../proto
export SERVER="${SERVER:-127.0.0.1:50070}"

node_sample() {
  test -d "$samples/node/node_modules" ||
    npm install --prefix "$samples/node" --no-package-lock --no-audit --no-fund --loglevel=error >&2
  node "$samples/node/match.js" "$@"
}

# Needs protoc (PROTOC), protoc-gen-go and protoc-gen-go-grpc, and the Go packages of Debian:
# golang-go golang-google-grpc-dev golang-google-protobuf-dev golang-github-golang-protobuf-1-5-dev
# protoc-gen-go-1-5 protoc-gen-go-grpc
go_sample() {
  built=$samples/go/built
  mkdir -p "$built/src"
  mapped=
  for name in content error policy match; do
    for plugin in go go-grpc; do
      mapped="$mapped --${plugin}_opt=Msimsearch/v1/$name.proto=example.org/simsearch/v1"
    done
  done
  (
    cd "$protos"
    # shellcheck disable=SC2086 # one option a word
    ${PROTOC:-protoc} -I . --go_out="$built/src" --go-grpc_out="$built/src" $mapped \
      simsearch/v1/content.proto simsearch/v1/error.proto simsearch/v1/policy.proto \
      simsearch/v1/match.proto
  )
  GO111MODULE=off GOPATH="$built:/usr/share/gocode" go build -o "$built/match" "$samples/go/main.go"
  # gRPC before 1.40 repeats nothing unless it is told to.
  GRPC_GO_RETRY=on SERVICE_CONFIG="$samples/service_config.json" "$built/match" "$@"
}

case "${1:-}" in
  node) shift && node_sample "$@" ;;
  go) shift && go_sample "$@" ;;
  *) echo "usage: SERVER=host:port $0 node|go TEXT" >&2 && exit 2 ;;
esac
