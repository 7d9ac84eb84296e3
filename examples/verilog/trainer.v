// Trains a core on a data set in ROM, then sends the trained parameters: a host in plain Verilog.
//
// The ROMs are read from files of hexadecimal words, as vectors.py writes them; in a design of your own a processor, a
// flash memory or a sensor takes their place.

module trainer #(
    parameter PARAMETERS = 163,            // words of all parameters
    parameter PARAMETER_BITS = 24,
    parameter SAMPLES = 150,
    parameter SAMPLE_WORDS = 7,            // words of x and of y
    parameter SAMPLE_BITS = 16,
    parameter STEPS = 2,
    parameter PARAMETER_FILE = "parameters.hex",
    parameter SAMPLE_FILE = "samples.hex"
) (
    input wire clk,
    input wire rst,
    output wire signed [PARAMETER_BITS-1:0] result,
    output wire result_valid,
    input wire result_ready,
    output wire done
);
  // Registers and commands of the core.
  localparam STATUS = 8'd2, COMMAND = 8'd3, COUNT = 8'd4, KEY = 8'd6, DATA_MODE = 8'd8;
  localparam STEP = 1, READ_PARAMETERS = 3, RESIDENT = 1;

  reg [PARAMETER_BITS-1:0] parameter_rom[0:PARAMETERS-1];
  reg [SAMPLE_BITS-1:0] sample_rom[0:SAMPLES*SAMPLE_WORDS-1];
  initial begin
    $readmemh(PARAMETER_FILE, parameter_rom);
    $readmemh(SAMPLE_FILE, sample_rom);
  end

  localparam SET_KEY = 0, SET_MODE = 1, LOAD = 2, SET_COUNT = 3, START = 4, ASK = 5, POLL = 6, READ = 7, TAKE = 8,
             DONE = 9;
  reg [3:0] state;
  reg [2:0] waited;
  reg [31:0] parameter_index, sample_index, result_index;

  // A word leaves, or arrives, at each rising edge at which valid and ready are both 1.
  wire parameters_ready, samples_ready;
  wire parameters_valid = state == LOAD && parameter_index != PARAMETERS;
  wire samples_valid = state == LOAD && sample_index != SAMPLES * SAMPLE_WORDS;
  wire loaded = parameter_index == PARAMETERS && sample_index == SAMPLES * SAMPLE_WORDS;

  reg [7:0] address;
  reg [31:0] data;
  reg write;
  wire [31:0] read_data;
  always @* begin
    address = STATUS;
    data = 0;
    write = 1;
    case (state)
      SET_KEY: address = KEY;
      SET_MODE: begin address = DATA_MODE; data = RESIDENT; end
      SET_COUNT: begin address = COUNT; data = STEPS; end
      START: begin address = COMMAND; data = STEP; end
      READ: begin address = COMMAND; data = READ_PARAMETERS; end
      default: write = 0;
    endcase
  end

  always @(posedge clk)
    if (rst) begin
      state <= SET_KEY;
      parameter_index <= 0;
      sample_index <= 0;
      result_index <= 0;
      waited <= 0;
    end else begin
      if (parameters_valid && parameters_ready) parameter_index <= parameter_index + 1;
      if (samples_valid && samples_ready) sample_index <= sample_index + 1;
      if (result_valid && result_ready) result_index <= result_index + 1;
      case (state)
        LOAD: if (loaded) state <= SET_COUNT;
        ASK: begin                                     // read data come seven cycles after the address
          waited <= waited + 1;
          if (waited == 6) begin
            waited <= 0;
            state <= POLL;
          end
        end
        POLL: state <= read_data[0] ? ASK : READ;      // bit 0: busy
        TAKE: if (result_index == PARAMETERS) state <= DONE;
        DONE: ;
        default: state <= state + 1;
      endcase
    end

  assign done = state == DONE;

  core core (
      .clk(clk),
      .rst(rst),
      .parameters__payload(parameter_rom[parameter_index]),
      .parameters__valid(parameters_valid),
      .parameters__ready(parameters_ready),
      .samples__payload(sample_rom[sample_index]),
      .samples__valid(samples_valid),
      .samples__ready(samples_ready),
      .results__payload(result),
      .results__valid(result_valid),
      .results__ready(result_ready),
      .bus__address(address),
      .bus__write_data(data),
      .bus__write_enable(write),
      .bus__read_data(read_data)
  );
endmodule
