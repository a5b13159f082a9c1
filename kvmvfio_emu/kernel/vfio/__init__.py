"""The kernel's VFIO: containers, groups, devices; models drivers/vfio as it stood around Linux 3.17.

KVM may import `external` from here and nothing else, as in Linux.
"""
