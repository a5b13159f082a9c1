"""What a vCPU executes when nobody gave it a script: the machine code in its memory, on the engine `unicorn`."""
