# Thin names over cargo and board/. The newcomer's two are `make demo` and `make test`.
# Demo and tests share one build: the dev profile (see Cargo.toml).
.DEFAULT_GOAL := help
.PHONY: help demo test test-kernel figures bench bench-peers bench-aarch64 bench-room-peers faults soak aarch64 image bundle test-image test-power-cut flash deb test-deb cross-check lint deny advisories fuzz rust cargo-deny cargo-fuzz cargo-deb

# Tools of their own, built by cargo into target/tools where another version or none is there; only these targets need them.
CARGO_DENY := 0.20.2
CARGO_FUZZ := 0.13.2
CARGO_DEB := 3.8.0
export PATH := $(CURDIR)/target/tools/bin:$(PATH)
# How long `make fuzz` looks at each target.
FUZZ_SECONDS ?= 60

help: ## Prints this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: rust ## A room of four kiosks on this machine, shown on a web page; ARGS="--seconds 15" goes to it
	@board/install-packages build
	@echo "Building Parlor (about ten minutes on two cores the first time, seconds after that), then running:"
	@echo "a broker and four whole kiosks with simulated cameras and screens. Ctrl-C ends it."
	cargo run --locked -- demo $(ARGS)

test: rust ## Every test: pure, endpoint, peers, broker, browser, and the kernel's in a virtual machine
	@board/install-packages build test kernel
	@echo "Building Parlor (about ten minutes on two cores the first time) and running every test (some minutes more):"
	@echo "first cargo's, then the daemon in a virtual machine with a real kernel's cameras and framebuffer."
	cargo test --locked --no-fail-fast
	@$(MAKE) --no-print-directory test-kernel

test-kernel: rust ## The daemon on V4L2 cameras and /dev/fb0 in a virtual machine (no root, nothing installed)
	@board/install-packages build kernel
	@echo "Fetching a stock Debian kernel and QEMU (the first time, about a minute), then booting it. No KVM is needed."
	board/testbed/test-kernel

figures: rust ## The figures of the README, measured on this machine in about three minutes
	@board/install-packages build
	cargo run --locked -- demo --figures --screen 1920x1080
	cargo run --locked --example sound
	cargo test --locked --test sound -- --nocapture

bench: rust ## What composing a screen and decoding cost beside the mere work, and a kiosk that receives three streams
	@board/install-packages build
	cargo bench --locked --bench compose
	cargo bench --locked --bench decode
	cargo run --locked --release -- bench $(ARGS)

bench-peers: rust ## Composing, decoding and converting beside libyuv, libswscale, pixman and libavcodec
	@board/install-packages build bench
	cargo bench --locked --features bench-peers --bench compose
	cargo bench --locked --features bench-peers --bench decode

bench-aarch64: ## The instructions of 64-bit ARM for a pixel beside libyuv's, counted by qemu-user; amd64 Debian only
	@board/install-packages build arm
	benches/instructions/run

bench-room-peers: rust ## A whole receiver beside Chromium and GStreamer, in about four minutes; ARGS="--mesh" goes to it
	@board/install-packages build room
	cargo build --locked --release --example receive
	benches/room_peers/run --parlor target/release/examples/receive $(ARGS)

faults: rust ## Makes every fault that can be made here, and prints what became of it
	@board/install-packages build test
	cargo test --locked --test faults --test network -- --nocapture

soak: rust ## Half an hour of everything that can happen to a room, by chance; ARGS="--minutes 1440 --seed 7" goes to it
	@board/install-packages build
	RUST_LOG=$${RUST_LOG:-off} cargo run --locked -- soak $(ARGS)

aarch64: ## The release binary for 64-bit ARM boards, and the library's tests on it under qemu-user; amd64 Debian only
	@board/install-packages build arm
	@echo "Building Parlor for 64-bit ARM twice, the binary and its tests. The first time that takes a good quarter of an hour:"
	board/aarch64/build test

image: ## A flashable image for BOARD (a folder in board/, as qemu-virt) in target/image; needs root, amd64 Debian
	@board/install-packages build arm image
	board/image "$(BOARD)"

bundle: ## A signed update for boards that run the image of BOARD; KEY= and CERTIFICATE= name who signs
	@board/install-packages image
	board/bundle "$(BOARD)"

test-image: ## Boots the image of qemu-virt in an emulated 64-bit ARM machine: a room on its glass, the splash, late partitions, Wi-Fi, updates taken and given back
	@board/install-packages image
	board/qemu-virt/test room splash late wifi update

test-power-cut: ## Cuts the power of that machine CUTS times (20), in starts and in updates; half an hour
	@board/install-packages image
	CUTS=$(CUTS) board/qemu-virt/test cuts

flash: ## Writes an image to a disk and reads it back: IMAGE=disk.img.zst DISK=/dev/sdX; refuses a disk in use
	@board/flash "$(IMAGE)" "$(DISK)"

deb: cargo-deb ## The Debian packages for amd64 and arm64 in target/debian, looked at by lintian; ARCH=amd64 makes that one
	@board/install-packages build deb
	@[ "$(ARCH)" = amd64 ] || [ "$$(dpkg --print-architecture)" != amd64 ] || board/install-packages arm
	@echo "Building Parlor for each processor as it is shipped (about a quarter of an hour each the first time), then the packages:"
	board/debian/build $(ARCH)

test-deb: ## Installs this machine's package on clean Debians 12 and 13 under systemd, upgrades and removes it; needs root
	@board/install-packages clean
	board/debian/test $(SUITES)

cross-check: rust ## What `cross` makes of its configuration, without network, rustup or a container engine; needs cross
	board/cross/check

lint: rust ## Formatting and clippy, warnings are errors
	@board/install-packages build
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --test kernel -- -D warnings

deny: cargo-deny ## Licences and sources of all that Parlor is built of, by deny.toml
	cargo deny --locked check licenses bans sources

advisories: cargo-deny ## Known holes in what Parlor is built of; asks RustSec's database over the network
	cargo deny --locked check advisories

fuzz: cargo-fuzz ## Hostile bytes for all that reads what others wrote, a minute each; FUZZ_SECONDS=600 looks longer
	@board/install-packages build fuzz
	@echo "Building Parlor with coverage and address sanitizer (about ten minutes on two cores the first time):"
	fuzz/run $(FUZZ_SECONDS)

cargo-deny: rust
	@cargo deny --version 2>/dev/null | grep -qx "cargo-deny $(CARGO_DENY)" || \
		CARGO_PROFILE_DEV_DEBUG=0 cargo install --locked --debug --root target/tools --version "=$(CARGO_DENY)" cargo-deny

# Without the default features: their libraries compress, which xz does as well.
cargo-deb: rust
	@cargo deb --version 2>/dev/null | grep -qx "cargo-deb $(CARGO_DEB)" || \
		CARGO_PROFILE_DEV_DEBUG=0 cargo install --locked --debug --no-default-features --root target/tools --version "=$(CARGO_DEB)" cargo-deb

cargo-fuzz: rust
	@cargo fuzz --version 2>/dev/null | grep -qx "cargo-fuzz $(CARGO_FUZZ)" || \
		CARGO_PROFILE_DEV_DEBUG=0 cargo install --locked --debug --root target/tools --version "=$(CARGO_FUZZ)" cargo-fuzz

rust:
	@board/check-rust
