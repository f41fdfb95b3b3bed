// Package bench is the harness: the published table beside Triune's figures
// ([Table]), the published statements as scenarios that hold or not
// ([Claims]), and the speed of this machine.
package bench
