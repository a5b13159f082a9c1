"""The VGIC that Linux has since 4.7 (virt/kvm/arm/vgic, then arch/arm64/kvm/vgic): one lock and state per interrupt."""
