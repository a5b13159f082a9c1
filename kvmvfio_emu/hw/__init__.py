"""The machine under the host kernel: interrupt controller, list registers, board, devices."""
