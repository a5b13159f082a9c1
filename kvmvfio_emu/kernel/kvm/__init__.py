"""KVM: /dev/kvm, virtual machines, vCPUs, devices, irqfd, the VGIC, the KVM-VFIO device (virt/kvm, arch/arm/kvm)."""
