// Runs the trainer and compares the parameters that it sends with those of expected.hex.

`timescale 1ns / 1ps

module trainer_tb;
  localparam PARAMETERS = 163, PARAMETER_BITS = 24;

  reg clk = 0, rst = 1;
  always #5 clk = !clk;

  wire signed [PARAMETER_BITS-1:0] result;
  wire result_valid, done;
  trainer #(.PARAMETERS(PARAMETERS), .PARAMETER_BITS(PARAMETER_BITS)) trainer (
      .clk(clk),
      .rst(rst),
      .result(result),
      .result_valid(result_valid),
      .result_ready(1'b1),
      .done(done)
  );

  reg [PARAMETER_BITS-1:0] expected[0:PARAMETERS-1];
  integer index = 0, wrong = 0;
  initial begin
    $readmemh("expected.hex", expected);
    repeat (4) @(posedge clk);
    rst <= 0;
  end

  always @(posedge clk)
    if (!rst) begin
      if (result_valid) begin
        if (result !== expected[index]) wrong = wrong + 1;
        index = index + 1;
      end
      if (done) begin
        $display("%0d parameters, %0d wrong", index, wrong);
        $finish;
      end
    end

  initial begin
    #10_000_000 $display("not done after 1,000,000 cycles");
    $finish;
  end
endmodule
