// Block RAM of 18 kbit with two ports, as ECP5 and Gowin have it: 2048 bytes of BYTE bits.
//
// A port of width 1 to BYTE addresses bits within a byte by the low bits of its address; one of two or four bytes takes
// the low bits of its address as enables of bytes, for writing. MODE is what a port's output does while it writes:
// 0 stays, 1 new word, 2 old word. PIPELINE puts a register after the output. Where one port writes bits and the other
// reads them in the same cycle, what is read is undefined: here the complement of the old bits, so that whatever
// depends on them is found.
module catgrad_hw_block_ram #(
    parameter BYTE = 9,
    parameter WIDTH_A = 18, WIDTH_B = 18,
    parameter MODE_A = 0, MODE_B = 0,
    parameter PIPELINE_A = 0, PIPELINE_B = 0,
    parameter ASYNC_RESET = 0,
    parameter RESET_BLOCKS_WRITE = 0,
    parameter [2048 * BYTE - 1:0] CONTENTS = 0
) (
    input clk_a, enable_a, write_a, pipeline_enable_a, reset_a,
    input [13:0] address_a,
    input [35:0] in_a,
    output [35:0] out_a,
    input clk_b, enable_b, write_b, pipeline_enable_b, reset_b,
    input [13:0] address_b,
    input [35:0] in_b,
    output [35:0] out_b
);
    localparam BYTES_A = WIDTH_A > BYTE ? WIDTH_A / BYTE : 1;
    localparam BYTES_B = WIDTH_B > BYTE ? WIDTH_B / BYTE : 1;
    // Bits of a byte that a port of less than a byte sees.
    localparam [BYTE - 1:0] PART_A = WIDTH_A < BYTE ? (1 << WIDTH_A) - 1 : {BYTE{1'b1}};
    localparam [BYTE - 1:0] PART_B = WIDTH_B < BYTE ? (1 << WIDTH_B) - 1 : {BYTE{1'b1}};

    reg [BYTE - 1:0] memory [0:2047];
    integer i;
    initial for (i = 0; i < 2048; i = i + 1) memory[i] = CONTENTS[BYTE * i +: BYTE];

    wire [10:0] byte_a = address_a[13:3] & ~(BYTES_A - 1);
    wire [10:0] byte_b = address_b[13:3] & ~(BYTES_B - 1);
    wire [2:0] bit_a = WIDTH_A < 8 ? address_a[2:0] & ~(WIDTH_A - 1) : 0;
    wire [2:0] bit_b = WIDTH_B < 8 ? address_b[2:0] & ~(WIDTH_B - 1) : 0;
    wire writing_a = enable_a && write_a && !(RESET_BLOCKS_WRITE && reset_a);
    wire writing_b = enable_b && write_b && !(RESET_BLOCKS_WRITE && reset_b);
    wire [3:0] written_a = !writing_a ? 0 : BYTES_A == 1 ? 1 : address_a[3:0];
    wire [3:0] written_b = !writing_b ? 0 : BYTES_B == 1 ? 1 : address_b[3:0];
    wire async_a = ASYNC_RESET && reset_a, async_b = ASYNC_RESET && reset_b;

    integer j;
    always @(posedge clk_a)
        for (j = 0; j < BYTES_A; j = j + 1)
            if (written_a[j])
                memory[byte_a + j] <=
                    (memory[byte_a + j] & ~(PART_A << bit_a)) | ((in_a[BYTE * j +: BYTE] & PART_A) << bit_a);
    integer k;
    always @(posedge clk_b)
        for (k = 0; k < BYTES_B; k = k + 1)
            if (written_b[k])
                memory[byte_b + k] <=
                    (memory[byte_b + k] & ~(PART_B << bit_b)) | ((in_b[BYTE * k +: BYTE] & PART_B) << bit_b);

    reg [35:0] word_a = 0, word_b = 0, delayed_a = 0, delayed_b = 0;
    integer l;
    always @(posedge clk_a, posedge async_a)
        if (reset_a) word_a <= 0;
        else if (enable_a && !(write_a && MODE_A == 0))
            for (l = 0; l < BYTES_A; l = l + 1)
                word_a[BYTE * l +: BYTE] <= MODE_A == 1 && written_a[l] ? in_a[BYTE * l +: BYTE] & PART_A
                    : ((memory[byte_a + l] ^ collided_a(byte_a + l)) >> bit_a) & PART_A;
    integer m;
    always @(posedge clk_b, posedge async_b)
        if (reset_b) word_b <= 0;
        else if (enable_b && !(write_b && MODE_B == 0))
            for (m = 0; m < BYTES_B; m = m + 1)
                word_b[BYTE * m +: BYTE] <= MODE_B == 1 && written_b[m] ? in_b[BYTE * m +: BYTE] & PART_B
                    : ((memory[byte_b + m] ^ collided_b(byte_b + m)) >> bit_b) & PART_B;

    function [BYTE - 1:0] collided_a(input [10:0] index);  // bits of a byte that port B writes
        collided_a = (index & ~(BYTES_B - 1)) == byte_b && written_b[index & (BYTES_B - 1)] ? PART_B << bit_b : 0;
    endfunction
    function [BYTE - 1:0] collided_b(input [10:0] index);  // bits of a byte that port A writes
        collided_b = (index & ~(BYTES_A - 1)) == byte_a && written_a[index & (BYTES_A - 1)] ? PART_A << bit_a : 0;
    endfunction

    always @(posedge clk_a, posedge async_a)
        if (reset_a) delayed_a <= 0;
        else if (pipeline_enable_a) delayed_a <= word_a;
    always @(posedge clk_b, posedge async_b)
        if (reset_b) delayed_b <= 0;
        else if (pipeline_enable_b) delayed_b <= word_b;
    assign out_a = PIPELINE_A ? delayed_a : word_a;
    assign out_b = PIPELINE_B ? delayed_b : word_b;
endmodule
