package device

// Device is a machine as the cost models see it: a chip, the operating system
// its figures hold for, and every figure with its source. It is a value to
// read; [Device.Override] returns changed copies.
type Device struct {
	// Name is the catalogue name, for example "iphone-14-pro", or the chip's
	// when a chip was asked for.
	Name string `yaml:"-"`
	// Label is the name people use, "iPhone 14 Pro".
	Label string `yaml:"-"`
	// Chip is the chip's catalogue name, "a16"; ChipLabel people's, "A16 Bionic".
	Chip, ChipLabel string `yaml:"-"`
	// OS is the operating system that the figures hold for, "iOS 17".
	OS string `yaml:"-"`
	// HasNE is false for chips without a Neural Engine that Core ML can use.
	HasNE bool `yaml:"-"`
	// Aliases are other names that [Load] accepts.
	Aliases []string `yaml:"-"`
	// Chain lists the catalogue entries that the figures come from, nearest
	// first: ["iphone-14-pro", "a16", "family-2021", "base"].
	Chain []string `yaml:"-"`
	// Overrides lists the changes applied by [Device.Override].
	Overrides []string `yaml:"-"`

	HandlingMS *Param `yaml:"handling_ms" unit:"ms" doc:"what a request costs whatever runs it: the framework call, image pre-processing where measured with it"`
	IdleWatts  *Param `yaml:"idle_watts" unit:"W" doc:"power of the chip while a request is in flight, beside its busy units"`
	DRAMGBs    *Param `yaml:"dram_gbs" unit:"GB/s" doc:"DRAM peak bandwidth"`
	SLCMB      *Param `yaml:"slc_mb" unit:"MB" doc:"system-level cache shared by the units"`
	SLCGain    *Param `yaml:"slc_gain" unit:"" doc:"bandwidth of the system-level cache over DRAM's"`

	NE          NE          `yaml:"ne"`
	GPU         GPU         `yaml:"gpu"`
	CPU         CPU         `yaml:"cpu"`
	Link        Link        `yaml:"link"`
	Load        LoadCost    `yaml:"load"`
	Energy      Energy      `yaml:"energy"`
	Uncertainty Uncertainty `yaml:"uncertainty"`
}

// NE holds the figures of the Neural Engine.
type NE struct {
	PeakTF       *Param `yaml:"peak_tf" unit:"TFLOP/s" doc:"fp16 ceiling, 2 FLOP a multiply-add"`
	Efficiency   *Param `yaml:"efficiency" unit:"" doc:"share of the ceiling that long dense layers reach"`
	Int8Factor   *Param `yaml:"int8_factor" unit:"" doc:"int8 x int8 rate over the fp16 rate"`
	Winograd     *Param `yaml:"winograd" unit:"" doc:"speed-up of dense 3x3 stride-1 convolutions (at most 2.25 by F(2x2,3x3))"`
	OCGroup      *Param `yaml:"oc_group" unit:"channels" doc:"output channels computed side by side; a partial group costs a whole one"`
	KHalf        *Param `yaml:"k_half" unit:"products" doc:"reduction length at which half the rate is reached"`
	NHalf        *Param `yaml:"n_half" unit:"positions" doc:"output positions at which half the rate is reached"`
	Depthwise    *Param `yaml:"depthwise" unit:"" doc:"share of the dense rate that a depthwise convolution reaches"`
	Linear       *Param `yaml:"linear" unit:"" doc:"share of the dense rate that a linear layer on [batch, sequence, channels] reaches (as a 1x1 convolution it would reach all of it)"`
	MatMul       *Param `yaml:"matmul" unit:"" doc:"share of the dense rate that a product of two activations reaches"`
	VectorGops   *Param `yaml:"vector_gops" unit:"Gop/s" doc:"element-wise operations a second of the planar engine"`
	Overlap      *Param `yaml:"overlap" unit:"" doc:"share of the shorter of arithmetic and activation traffic that hides behind the longer, 0 to 1"`
	SparseSkip   *Param `yaml:"sparse_skip" unit:"" doc:"share of the multiplications by zero beyond half of them that is skipped"`
	LUTUS        *Param `yaml:"lut_us" unit:"us" doc:"loading one look-up table of a palette"`
	StoreMB      *Param `yaml:"store_mb" unit:"MB" doc:"on-chip store; a layer's activations beyond it spill"`
	StoreSpread  *Param `yaml:"store_spread" unit:"" doc:"a working set of (1 + this) stores spills wholly"`
	BorderPasses *Param `yaml:"border_passes" unit:"passes" doc:"fp16 passes over a quantized tensor whose last operator computes in floating point"`
	ChipGBs      *Param `yaml:"chip_gbs" unit:"GB/s" doc:"activation bandwidth of the on-chip store"`
	SpillGBs     *Param `yaml:"spill_gbs" unit:"GB/s" doc:"activation bandwidth of what does not fit the store"`
	IOGBs        *Param `yaml:"io_gbs" unit:"GB/s" doc:"rate at which a request's own inputs and outputs reach the unit, beside their traffic inside"`
	StreamGBs    *Param `yaml:"stream_gbs" unit:"GB/s" doc:"rate at which weights stream from DRAM"`
	PrefetchMB   *Param `yaml:"prefetch_mb" unit:"MB" doc:"how far the weight stream may run ahead of compute"`
	ExpandGBs    *Param `yaml:"expand_gbs" unit:"GB/s" doc:"rate at which compressed weights expand, in bytes of their dense form"`
	MoveFactor   *Param `yaml:"move_factor" unit:"" doc:"passes that a transpose, concatenation or last-axis reshape takes over its tensors"`
	ConcatFactor *Param `yaml:"concat_factor" unit:"" doc:"passes that a concatenation or split along channels takes over its tensors"`
	KernelMax    *Param `yaml:"kernel_max" unit:"taps" doc:"widest kernel run in one pass; wider ones are decomposed"`
	AxisMax      *Param `yaml:"axis_max" unit:"elements" doc:"longest width or height of a tensor"`
	ChannelMax   *Param `yaml:"channel_max" unit:"channels" doc:"most channels of a tensor"`
	WeightMaxMB  *Param `yaml:"weight_max_mb" unit:"MB" doc:"largest weight of one layer, as it is stored"`
	LayerUS      *Param `yaml:"layer_us" unit:"us" doc:"overhead of a layer"`
	FloorMS      *Param `yaml:"floor_ms" unit:"ms" doc:"overhead of a request that uses the unit"`
	Gather       *Flag  `yaml:"gather" doc:"gather runs on the unit"`
	Texture      *Flag  `yaml:"texture" doc:"resize, crop and affine sampling run on the unit"`
	Trig         *Flag  `yaml:"trig" doc:"sine and cosine run on the unit"`
	Dilation     *Flag  `yaml:"dilation" doc:"dilated convolutions run on the unit"`
	StreamInt8   *Flag  `yaml:"stream_int8" doc:"int8 weights stay int8 until next to the multipliers; otherwise they are unfolded to fp16 first"`
}

// GPU holds the figures of the GPU.
type GPU struct {
	PeakTF     *Param `yaml:"peak_tf" unit:"TFLOP/s" doc:"fp16 multiply-add peak, 2 FLOP a multiply-add"`
	Efficiency *Param `yaml:"efficiency" unit:"" doc:"share of the peak that large dense layers reach through Core ML"`
	Winograd   *Param `yaml:"winograd" unit:"" doc:"speed-up of dense 3x3 stride-1 convolutions"`
	GEMM       *Param `yaml:"gemm" unit:"" doc:"rate of matrix products over that of convolutions"`
	HalfKops   *Param `yaml:"half_kops" unit:"K outputs" doc:"outputs of a layer, in thousands, at which half the rate is reached (occupancy)"`
	KHalf      *Param `yaml:"k_half" unit:"products" doc:"reduction length at which half the rate is reached"`
	Depthwise  *Param `yaml:"depthwise" unit:"" doc:"share of the dense rate that a depthwise convolution reaches"`
	VectorGops *Param `yaml:"vector_gops" unit:"Gop/s" doc:"element-wise operations a second"`
	DRAMShare  *Param `yaml:"dram_share" unit:"" doc:"share of the DRAM bandwidth that the GPU reaches"`
	CacheMB    *Param `yaml:"cache_mb" unit:"MB" doc:"last-level cache of the GPU; activations of a layer that fit are served from it"`
	CacheGBs   *Param `yaml:"cache_gbs" unit:"GB/s" doc:"bandwidth of that cache"`
	PrefetchMB *Param `yaml:"prefetch_mb" unit:"MB" doc:"how far weights are fetched ahead"`
	ExpandGBs  *Param `yaml:"expand_gbs" unit:"GB/s" doc:"rate of dequantizing packed weights inside kernels, and of run-time quantize passes, in dense bytes"`
	LayerUS    *Param `yaml:"layer_us" unit:"us" doc:"overhead of a layer (kernel launch)"`
	FloorMS    *Param `yaml:"floor_ms" unit:"ms" doc:"overhead of a request that uses the unit"`
	W8A8Passes *Param `yaml:"w8a8_passes" unit:"passes" doc:"run-time quantize and dequantize passes over the activations of a W8A8 layer; 0 where the GPU fuses them"`
	PackedInt4 *Flag  `yaml:"packed_int4" doc:"int4 and int8 per block stay packed in memory and are dequantized inside the kernel"`
}

// CPU holds the figures of the CPU.
type CPU struct {
	MatrixGF   *Param `yaml:"matrix_gf" unit:"GFLOP/s" doc:"fp32 peak of the matrix unit (AMX, SME), or of the vector units where there is none"`
	Efficiency *Param `yaml:"efficiency" unit:"" doc:"share of the peak that large dense layers reach"`
	Winograd   *Param `yaml:"winograd" unit:"" doc:"speed-up of dense 3x3 stride-1 convolutions"`
	KHalf      *Param `yaml:"k_half" unit:"products" doc:"reduction length at which half the rate is reached"`
	NHalf      *Param `yaml:"n_half" unit:"positions" doc:"output positions at which half the rate is reached"`
	VectorGF   *Param `yaml:"vector_gf" unit:"GFLOP/s" doc:"fp32 rate of the vector units in depthwise convolutions"`
	VectorGops *Param `yaml:"vector_gops" unit:"Gop/s" doc:"element-wise operations a second"`
	RowShare   *Param `yaml:"row_share" unit:"" doc:"share of vector_gops that softmax and norms along an axis reach"`
	DRAMShare  *Param `yaml:"dram_share" unit:"" doc:"share of the DRAM bandwidth that the CPU reaches in a network"`
	CacheMB    *Param `yaml:"cache_mb" unit:"MB" doc:"L2 of the performance cores"`
	CacheGBs   *Param `yaml:"cache_gbs" unit:"GB/s" doc:"bandwidth of that cache"`
	PrefetchMB *Param `yaml:"prefetch_mb" unit:"MB" doc:"how far weights are fetched ahead"`
	ExpandGBs  *Param `yaml:"expand_gbs" unit:"GB/s" doc:"rate of run-time quantize and dequantize passes, in bytes of float activations"`
	LayerUS    *Param `yaml:"layer_us" unit:"us" doc:"overhead of a layer"`
	FloorMS    *Param `yaml:"floor_ms" unit:"ms" doc:"overhead of a request that uses the unit"`
	W8A8Passes *Param `yaml:"w8a8_passes" unit:"passes" doc:"run-time quantize and dequantize passes over the activations of a W8A8 layer"`
}

// Link holds what handing a tensor from one unit to another costs.
type Link struct {
	CPUGPUMS *Param `yaml:"cpu_gpu_ms" unit:"ms" doc:"segment switch between CPU and GPU"`
	CPUNEMS  *Param `yaml:"cpu_ne_ms" unit:"ms" doc:"segment switch between CPU and Neural Engine"`
	GPUNEMS  *Param `yaml:"gpu_ne_ms" unit:"ms" doc:"segment switch between GPU and Neural Engine"`
	GBs      *Param `yaml:"gbs" unit:"GB/s" doc:"rate of converting a tensor's layout and type at a switch"`
}

// LoadCost holds what opening a model costs.
type LoadCost struct {
	FixedMS      *Param `yaml:"fixed_ms" unit:"ms" doc:"opening a model, whatever its size"`
	ReadGBs      *Param `yaml:"read_gbs" unit:"GB/s" doc:"reading the package from storage"`
	ExpandGBs    *Param `yaml:"expand_gbs" unit:"GB/s" doc:"decompressing weights at load, in dense bytes"`
	CPUCompileMS *Param `yaml:"cpu_compile_ms" unit:"ms" doc:"preparing a layer for the CPU"`
	GPUCompileMS *Param `yaml:"gpu_compile_ms" unit:"ms" doc:"preparing a layer for the GPU"`
	NECompileMS  *Param `yaml:"ne_compile_ms" unit:"ms" doc:"specialising a layer for the Neural Engine"`
}

// Energy holds energy per operation and byte, and power.
type Energy struct {
	NEFP16PJ   *Param `yaml:"ne_fp16_pj" unit:"pJ" doc:"Neural Engine, fp16 multiply-add"`
	NEInt8PJ   *Param `yaml:"ne_int8_pj" unit:"pJ" doc:"Neural Engine, int8 multiply-add"`
	GPUPJ      *Param `yaml:"gpu_pj" unit:"pJ" doc:"GPU, fp16 multiply-add"`
	CPUPJ      *Param `yaml:"cpu_pj" unit:"pJ" doc:"CPU, fp32 multiply-add"`
	VectorPJ   *Param `yaml:"vector_pj" unit:"pJ" doc:"element-wise operation on any unit"`
	ChipPJB    *Param `yaml:"chip_pj_byte" unit:"pJ/B" doc:"a byte served on chip"`
	DRAMPJB    *Param `yaml:"dram_pj_byte" unit:"pJ/B" doc:"a byte from or to DRAM"`
	NEStaticW  *Param `yaml:"ne_static_w" unit:"W" doc:"Neural Engine while busy, beside its dynamic energy"`
	GPUStaticW *Param `yaml:"gpu_static_w" unit:"W" doc:"GPU while busy, beside its dynamic energy"`
	CPUStaticW *Param `yaml:"cpu_static_w" unit:"W" doc:"CPU while busy, beside its dynamic energy"`
}

// Uncertainty holds the factors from a prediction to its interval.
type Uncertainty struct {
	CPULow  *Param `yaml:"cpu_low" unit:"" doc:"10th percentile over the prediction, CPU"`
	CPUHigh *Param `yaml:"cpu_high" unit:"" doc:"90th percentile over the prediction, CPU"`
	GPULow  *Param `yaml:"gpu_low" unit:"" doc:"10th percentile over the prediction, GPU"`
	GPUHigh *Param `yaml:"gpu_high" unit:"" doc:"90th percentile over the prediction, GPU"`
	NELow   *Param `yaml:"ne_low" unit:"" doc:"10th percentile over the prediction, Neural Engine"`
	NEHigh  *Param `yaml:"ne_high" unit:"" doc:"90th percentile over the prediction, Neural Engine"`
}
