"""The numbers of a GICv3 as its architecture gives them (Arm IHI 0069): frames, register offsets, fields.

Only numbers: what a virtual GICv3 does with them is KVM's business. GICD is the distributor, GICR a redistributor
(its RD_base frame, then its SGI_base frame), GITS an interrupt translation service, ICC the CPU interface, which a
GICv3 has in system registers.
"""

from __future__ import annotations

FRAME = 0x10000

# -- distributor ----------------------------------------------------------------------------------------------------
GICD_CTLR = 0x0000
GICD_TYPER = 0x0004
GICD_IIDR = 0x0008
GICD_TYPER2 = 0x000C
GICD_STATUSR = 0x0010
GICD_IGROUPR = 0x0080
GICD_ISENABLER = 0x0100
GICD_ICENABLER = 0x0180
GICD_ISPENDR = 0x0200
GICD_ICPENDR = 0x0280
GICD_ISACTIVER = 0x0300
GICD_ICACTIVER = 0x0380
GICD_IPRIORITYR = 0x0400
GICD_ITARGETSR = 0x0800
GICD_ICFGR = 0x0C00
GICD_IGRPMODR = 0x0D00
GICD_IROUTER = 0x6000
GICD_IDREGS = 0xFFD0
GICD_PIDR2 = 0xFFE8

GICD_CTLR_ENABLE_G1 = 1 << 1
GICD_CTLR_ARE = 1 << 4
GICD_CTLR_DS = 1 << 6

GICD_TYPER_LPIS = 1 << 17
GICD_TYPER_ID_BITS_SHIFT = 19

IIDR_REVISION_SHIFT = 12
IIDR_REVISION_MASK = 0xF << IIDR_REVISION_SHIFT
IIDR_PRODUCT_SHIFT = 24
IMPLEMENTER_ARM = 0x43B

PIDR2_GICV3 = 0x30

# -- redistributor --------------------------------------------------------------------------------------------------
GICR_CTLR = 0x0000
GICR_IIDR = 0x0004
GICR_TYPER = 0x0008
GICR_STATUSR = 0x0010
GICR_WAKER = 0x0014
GICR_PROPBASER = 0x0070
GICR_PENDBASER = 0x0078
GICR_INVLPIR = 0x00A0
GICR_INVALLR = 0x00B0
GICR_SYNCR = 0x00C0
GICR_IDREGS = 0xFFD0
GICR_IGROUPR0 = FRAME + GICD_IGROUPR
GICR_ISENABLER0 = FRAME + GICD_ISENABLER
GICR_ICENABLER0 = FRAME + GICD_ICENABLER
GICR_ISPENDR0 = FRAME + GICD_ISPENDR
GICR_ICPENDR0 = FRAME + GICD_ICPENDR
GICR_ISACTIVER0 = FRAME + GICD_ISACTIVER
GICR_ICACTIVER0 = FRAME + GICD_ICACTIVER
GICR_IPRIORITYR0 = FRAME + GICD_IPRIORITYR
GICR_ICFGR0 = FRAME + GICD_ICFGR
GICR_IGRPMODR0 = FRAME + GICD_IGRPMODR
GICR_NSACR = FRAME + 0x0E00

GICR_CTLR_ENABLE_LPIS = 1 << 0
GICR_CTLR_CES = 1 << 1
GICR_CTLR_IR = 1 << 2

GICR_TYPER_PLPIS = 1 << 0
GICR_TYPER_LAST = 1 << 4
GICR_TYPER_NUMBER_SHIFT = 8
GICR_TYPER_AFFINITY_SHIFT = 32

#: GICR_PENDBASER: the table is known to be zero.
GICR_PENDBASER_PTZ = 1 << 62

# -- interrupt translation service ----------------------------------------------------------------------------------
GITS_CTLR = 0x0000
GITS_IIDR = 0x0004
GITS_TYPER = 0x0008
GITS_CBASER = 0x0080
GITS_CWRITER = 0x0088
GITS_CREADR = 0x0090
GITS_BASER = 0x0100
GITS_IDREGS = 0xFFD0
GITS_PIDR4 = 0xFFD0
GITS_PIDR0 = 0xFFE0
GITS_PIDR1 = 0xFFE4
GITS_PIDR2 = 0xFFE8
GITS_CIDR0 = 0xFFF0
GITS_TRANSLATER = FRAME + 0x0040

GITS_CTLR_ENABLE = 1 << 0
GITS_CTLR_QUIESCENT = 1 << 31

GITS_TYPER_PLPIS = 1 << 0
GITS_TYPER_ITT_ENTRY_SIZE_SHIFT = 4
GITS_TYPER_ID_BITS_SHIFT = 8
GITS_TYPER_DEV_BITS_SHIFT = 13

GITS_BASER_VALID = 1 << 63
GITS_BASER_INDIRECT = 1 << 62
GITS_BASER_TYPE_SHIFT = 56
GITS_BASER_TYPE_MASK = 7 << GITS_BASER_TYPE_SHIFT
GITS_BASER_TYPE_DEVICE = 1
GITS_BASER_TYPE_COLLECTION = 4
GITS_BASER_ENTRY_SIZE_SHIFT = 48
GITS_BASER_ENTRY_SIZE_MASK = 0x1F << GITS_BASER_ENTRY_SIZE_SHIFT
GITS_BASER_PAGE_SIZE_MASK = 3 << 8
GITS_BASER_PAGE_SIZE_64K = 2 << 8
GITS_CBASER_VALID = 1 << 63

#: Shareability and cacheability as the four base registers encode them.
SHAREABILITY_INNER, SHAREABILITY_OUTER = 1, 2
CACHE_DEVICE, CACHE_NONE, CACHE_READ_ALLOCATE_WRITE_BACK = 0, 1, 3
OUTER_CACHE_SAME_AS_INNER = 0

# ITS commands: byte 0 of four 64-bit words.
CMD_MOVI = 0x01
CMD_INT = 0x03
CMD_CLEAR = 0x04
CMD_SYNC = 0x05
CMD_MAPD = 0x08
CMD_MAPC = 0x09
CMD_MAPTI = 0x0A
CMD_MAPI = 0x0B
CMD_INV = 0x0C
CMD_INVALL = 0x0D
CMD_MOVALL = 0x0E
CMD_DISCARD = 0x0F

#: The first locality-specific interrupt; its configuration byte is the first of the table at GICR_PROPBASER.
FIRST_LPI = 8192
LPI_ENABLED = 1 << 0
LPI_PRIORITY_MASK = 0xFC

# -- CPU interface: op0:op1:CRn:CRm:op2 in 16 bits -------------------------------------------------------------------


def sysreg(op0: int, op1: int, crn: int, crm: int, op2: int) -> int:
    """The 16-bit encoding of a system register as instructions and KVM have it."""
    return op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2


ICC_PMR_EL1 = sysreg(3, 0, 4, 6, 0)
ICC_IAR0_EL1 = sysreg(3, 0, 12, 8, 0)
ICC_EOIR0_EL1 = sysreg(3, 0, 12, 8, 1)
ICC_HPPIR0_EL1 = sysreg(3, 0, 12, 8, 2)
ICC_BPR0_EL1 = sysreg(3, 0, 12, 8, 3)
ICC_AP0R_EL1 = tuple(sysreg(3, 0, 12, 8, 4 | n) for n in range(4))
ICC_AP1R_EL1 = tuple(sysreg(3, 0, 12, 9, n) for n in range(4))
ICC_DIR_EL1 = sysreg(3, 0, 12, 11, 1)
ICC_RPR_EL1 = sysreg(3, 0, 12, 11, 3)
ICC_SGI1R_EL1 = sysreg(3, 0, 12, 11, 5)
ICC_ASGI1R_EL1 = sysreg(3, 0, 12, 11, 6)
ICC_SGI0R_EL1 = sysreg(3, 0, 12, 11, 7)
ICC_IAR1_EL1 = sysreg(3, 0, 12, 12, 0)
ICC_EOIR1_EL1 = sysreg(3, 0, 12, 12, 1)
ICC_HPPIR1_EL1 = sysreg(3, 0, 12, 12, 2)
ICC_BPR1_EL1 = sysreg(3, 0, 12, 12, 3)
ICC_CTLR_EL1 = sysreg(3, 0, 12, 12, 4)
ICC_SRE_EL1 = sysreg(3, 0, 12, 12, 5)
ICC_IGRPEN0_EL1 = sysreg(3, 0, 12, 12, 6)
ICC_IGRPEN1_EL1 = sysreg(3, 0, 12, 12, 7)

ICC_CTLR_CBPR = 1 << 0
ICC_CTLR_EOIMODE = 1 << 1
ICC_CTLR_PRI_BITS_SHIFT = 8
ICC_CTLR_PRI_BITS_MASK = 7 << ICC_CTLR_PRI_BITS_SHIFT
ICC_CTLR_ID_BITS_SHIFT = 11
ICC_CTLR_ID_BITS_MASK = 7 << ICC_CTLR_ID_BITS_SHIFT
ICC_CTLR_SEIS = 1 << 14
ICC_CTLR_A3V = 1 << 15

ICC_SRE_SRE = 1 << 0
ICC_SRE_DFB = 1 << 1
ICC_SRE_DIB = 1 << 2
