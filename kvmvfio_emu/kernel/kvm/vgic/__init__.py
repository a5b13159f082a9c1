"""The virtual GICv2 as Linux 3.17 to 4.6 built it (virt/kvm/arm/vgic.c, vgic-v2.c), with forwarded interrupts."""
