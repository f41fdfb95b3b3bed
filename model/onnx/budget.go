package onnx

// What the records of a model take in memory, in bytes, for the reader's
// budget.
const (
	nodeBytes     = 150 // a model.Node in its lists
	constBytes    = 170 // a model.Value under its name
	storeBytes    = 180 // its model.Const and Tensor
	protoBytes    = 130 // a nodeProto
	waitingBytes  = 130 // a node in the maps that sort
	attrBytes     = 200 // an attr
	entryBytes    = 130 // a string and what it stands for in a map
	nameBytes     = 30  // a string in a list, and the value beside it
	numberBytes   = 8   // a number in a list
	functionBytes = 400
)
