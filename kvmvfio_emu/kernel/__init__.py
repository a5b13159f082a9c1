"""The emulated host kernel: files, interrupts, and under it KVM (`kvm/`) and VFIO (`vfio/`)."""
