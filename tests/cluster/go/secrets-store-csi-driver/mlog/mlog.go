// Package mlog stands for the module of this name, which no proxy serves: it has what the driver calls of it, and leaves
// klog as it is.
package mlog

import (
	"context"
	"log"
)

type LogFormat string

const (
	FormatText LogFormat = "text"
	FormatJSON LogFormat = "json"
)

// Setup returns what is to be called at the end.
func Setup() func() { return func() {} }

func ValidateAndSetKlogLevelAndFormatGlobally(context.Context, any, LogFormat) error { return nil }

func Error(message string, err error) { log.Printf("%s: %v", message, err) }

func Fatal(err error) { log.Fatal(err) }
