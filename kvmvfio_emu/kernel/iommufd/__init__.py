"""iommufd, /dev/iommu: address spaces for devices, without VFIO's containers; models drivers/iommu/iommufd.

VFIO imports it, never the other way round.
"""
